"""Other libraries that can use engines, each imported only when it is asked for."""

from __future__ import annotations

from parallelz.client.view import View

JOBLIB_NAME = "parallelz"


def register_joblib_backend(
    name: str = JOBLIB_NAME,
    *,
    make_default: bool = False,
    view: View | None = None,
) -> None:
    """Let joblib, and so scikit-learn, run its jobs on engines.

    Afterwards ``joblib.parallel_config(backend=name)`` uses them. What a batch of jobs raises
    is raised by ``joblib.Parallel``, and its other batches are given up.

    Parameters
    ----------
    name
        By which joblib knows them.
    make_default
        Whether joblib uses them where no backend is named.
    view
        Whose engines, with the flags that it has when they are used. None: those of the cluster
        that ``Client()`` finds then; each Parallel has a client of its own, for as long as it
        runs.

    Raises
    ------
    ImportError
        If joblib is not installed.
    """
    try:
        from parallelz.client import joblib_backend
    except ImportError as error:
        raise ImportError("joblib is missing: pip install 'parallelz[joblib]'") from error
    joblib_backend.register(view, name, make_default=make_default)
