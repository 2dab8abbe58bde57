"""How the embedded backbone in ``checkpoints/pocket`` was made; nothing in ``ddcm`` imports this."""
