"""Evaluate runs at larger resolutions than trained: scripts/evaluate.py for each size and rule, as one JSON file.

python scripts/resolution_table.py --workdirs RUN [RUN ...] --sizes 28 44 56 [--out=results/resolution.json]
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from gormley_vision.errors import UserError, reported

with reported():  # importing takes a moment
    from gormley_vision.config import run_config
    from gormley_vision.files import path_flag, refuse_unwritable, write_json


def main() -> None:
    """Evaluate each run at each size, with each rule for its positions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdirs", required=True, nargs="+", type=path_flag, help="the runs' folders")
    parser.add_argument("--sizes", required=True, nargs="+", type=int, help="image sizes in pixels")
    parser.add_argument("--out", type=path_flag, help="also write the table to this JSON file")
    options = parser.parse_args()
    if options.out:
        refuse_unwritable(options.out)
    configs = {workdir: run_config(workdir) for workdir in options.workdirs}
    for workdir, config in configs.items():
        if "vit" not in config:
            raise UserError(f"{workdir} is a run of {config['task']}: pass runs of a Vision Transformer")
    rows = []
    for workdir in options.workdirs:
        config = configs[workdir]
        vit, trained = config["vit"], config["data"]["image_size"]
        for size in options.sizes:
            scaled = vit["rope"] != "none" and size != trained
            for rule in ("none", "interpolate", "ntk") if scaled else ("none",):
                command = [sys.executable, str(Path(__file__).with_name("evaluate.py")), f"--workdir={workdir}"]
                done = subprocess.run(
                    [*command, f"--image_size={size}", f"--rope_scaling={rule}"], capture_output=True, text=True
                )
                if done.returncode:
                    raise SystemExit(done.stderr)
                figures = json.loads(done.stdout.splitlines()[-1])
                rows.append({"run": workdir.name, "position": vit["position"], "rope": vit["rope"], **figures})
                print(json.dumps(rows[-1]), flush=True)
    if options.out:
        write_json(options.out, {"rows": rows})


if __name__ == "__main__":
    with reported():
        main()
