"""Files that appear whole, ranks, memory, exit codes: nothing about sound."""
