"""Sound without a network: files, levels, mel, front ends, windows, post-processing."""
