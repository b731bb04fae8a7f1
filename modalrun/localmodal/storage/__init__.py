"""Keep what survives a restart of the server.

paths         where the files of a state folder are
store         the records, in SQLite
logstore      the output of sandboxes
entries       the values of queues and dicts
tree          folders that sandboxes fill; `volume_trees` are the volumes that they see
disk          write to a disk that may be full
ids           ids and times in Modal's forms
"""
