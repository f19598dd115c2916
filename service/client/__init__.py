"""A client of the REST API, and a logger for training loops. Needs httpx and pyarrow, nothing else.

from service.client import Client
lens = Client("http://127.0.0.1:8000")
lens.sql("SELECT step, count(*) FROM tokens WHERE analysis = '…' GROUP BY step")
"""

from service.client.client import ApiError, Client
from service.client.logger import RolloutLogger

__all__ = ["ApiError", "Client", "RolloutLogger"]
