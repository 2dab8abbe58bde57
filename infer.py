"""The command line without installing: ``python infer.py VERB ...`` equals ``ddcm VERB ...``."""

from ddcm.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
