"""`python -m service.worker`: the child process behind the local executor."""

import os
import warnings

if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)  # between transformers and peft; not ours to mend

    from transformers.utils import logging

    from service.process import serve
    from service.worker.score import handle

    logging.disable_progress_bar()
    serve(handle)
