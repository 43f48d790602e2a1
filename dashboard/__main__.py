"""Start the dashboard: `python -m dashboard [options of streamlit] [-- --device cuda]`.

As `streamlit run dashboard/app.py`, but the model stack is imported while the server starts, not when a first reader
has come.
"""

import sys
from pathlib import Path

from gpt_core.warmup import start_warmup


def main() -> None:
    """Begin the imports, then be `streamlit run`."""
    from dashboard.components.device import choose_device

    options = sys.argv[1:]
    choose_device(options[options.index("--") + 1 :] if "--" in options else [])
    start_warmup()
    from streamlit.web import cli

    sys.argv = ["streamlit", "run", str(Path(__file__).with_name("app.py")), *options]
    cli.main(prog_name="streamlit")


if __name__ == "__main__":
    main()
