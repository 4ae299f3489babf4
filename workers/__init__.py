"""Celery: the application, the task, the worker's loop and the scheduler.

The folder is `workers/` at the top of the repository, and the package is `dispatcher.workers`: `dispatcher/workers` is
a link to the folder. Imported as `workers` as well, every module would exist twice, each with its own state.
"""

if __name__ != "dispatcher.workers":
    raise ImportError(f"this package is dispatcher.workers; it was imported as {__name__}", name=__name__)
