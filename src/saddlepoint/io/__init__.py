"""Files: written atomically, locked, and read with limits where they may come from a stranger.

``atomic`` writes, ``locks`` locks, ``limits`` reads YAML and JSON, ``schemas`` helps to validate
what was read, ``checkpoint`` reads and writes checkpoints, ``imports`` decides which modules a file
may name. The page ``docs/threat-model.md`` says what is guaranteed. Import from these files: the
package loads none of them, because ``checkpoint`` needs torch and ``limits`` PyYAML.
"""
