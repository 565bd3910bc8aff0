"""Install the lowest version of each direct dependency that pyproject.toml allows."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
pins = [re.sub(r">=([\w.]+).*", r"==\1", requirement) for requirement in project["dependencies"]]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", *pins]))
