"""One process for each run folder, also on file systems that have no locks."""

import contextlib
import errno
import warnings
from pathlib import Path

import filelock

from simsiam_keras.errors import Caution, RunFailed

NATIVE, SOFT, PROBE = ".lock", ".lock.soft", ".lock.probe"
FILES = {NATIVE, SOFT, PROBE}  # what a lock may leave in a folder
# What flock says on NFS without a lock daemon, Lustre without -o flock, some FUSE and SMB mounts.
NONE_THERE = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


@contextlib.contextmanager
def held(folder):
    """Holds a folder against other processes.

    Where the file system has no locks, the file `.lock.soft` is one while it exists. What a killed
    process left of it is taken over on the same machine (filelock looks whether the process lives);
    a dead process of another machine cannot be told from a living one.

    Args:
        folder: a folder that exists.

    Raises:
        ValueError: if a lock is a symbolic link, whose target would be emptied.
        RunFailed: if another process holds it.
    """
    folder = Path(folder)
    for name in sorted(FILES):
        if (folder / name).is_symlink():
            raise ValueError(f"{folder / name} must be a file, it is a symbolic link; delete it")
    native = _has_locks(folder)
    if native:
        lock = filelock.FileLock(folder / NATIVE, timeout=0)
    else:
        lock = filelock.SoftFileLock(folder / SOFT, timeout=0)
        warnings.warn(
            f"{folder} is on a file system without locks; the file {SOFT} stands for one while "
            "this process runs",
            Caution,
            stacklevel=4,
        )
    try:
        lock.acquire()
    except filelock.Timeout:
        sentence = f"{folder} is in use by another process; wait for it or give another --run_dir"
        if not native:
            sentence += f". If that process is gone (see {folder / SOFT}), delete that file"
        raise RunFailed(sentence) from None
    with lock:
        yield


def _has_locks(folder):
    try:
        import fcntl
    except ImportError:  # Windows, whose own locks filelock takes
        return True
    path = folder / PROBE
    try:
        with open(path, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno in NONE_THERE:
            return False
        raise
    finally:
        path.unlink(missing_ok=True)
    return True
