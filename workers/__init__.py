"""Celery: the application, the task, the worker's loop and the scheduler."""
