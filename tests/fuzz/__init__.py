"""Damaged and hostile input by the thousand: ``python -m tests.fuzz --cases 100000 --kinds audio ddcm --seed 0``.

    mutate     how a case is made of a seed: bytes, and text with the words of its kind
    kinds      what reads it, and what it may answer: the table of the five kinds
    codebooks  damage inside containers that would refuse any other damage: safetensors, zip
    run        one case, and many in this process; what is found is kept
    watch      many in a process that is watched
    corpus/    the seeds, small (``python -m tests.fuzz.seeds`` makes them of examples/)
    found/     what once broke the package; a test replays it

A case is good if it is read, or refused with a UserError (for YAML with exit code 2). Anything else is found: another
exception, a hang, a crash of the process, more than 2 GiB of memory.
"""
