"""Small tools of no domain.

backoff, rate_limit          when to try again, when to start the next
check, compatibility         findings of checks; the installed versions
dockerfile                   its instructions; which the local Modal server executes
garbage_collection           pause it while much is imported
globs, ignore_files          read .gitignore and .dockerignore
interrupts                   SIGINT, SIGTERM and single keys
line_assembler, text         lines from pieces; texts of others as one clean line
modal_catalog                what Modal offers and allows: GPU types, regions, names, maxima
nearest, timeparse           misspelt words, points in time
reachability                 whether a server answers
"""
