"""``python -m pyparam`` and the command ``pyparam``."""

from pyparam._cli import main

if __name__ == "__main__":
    main()
