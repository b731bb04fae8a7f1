"""What everything that is printed shares.

writer       the streams of this process, one line at a time
console      Rich, for a terminal
table        tables
spinner      a line that says what is waited for
wrapping     lines that fit, with their continuation indented
step_labels  the names of steps before their lines
sanitize     texts of others, without what could do harm
"""
