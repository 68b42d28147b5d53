"""Run as a program: takes the lock of a folder, says so, and holds it until it is killed."""

import sys
import time
from pathlib import Path

from keygap.store.lock import locked

if __name__ == "__main__":
    with locked(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(600)
