"""Write the published Inception-v3 weights of FID as a safetensors file: run it where PyTorch and that file are.

    python scripts/convert_inception.py weights-inception-2015-12-05-6726825d.pth inception.safetensors

The file is that of torch-fidelity's release v0.2.0, or pytorch-fid's pt_inception-2015-12-05-6726825d.pth; its SHA-256
begins with the last part of its name. It is read without unpickling code (weights_only). The result keeps the whole
SHA-256, by which gormley_vision knows the weights, and is read without PyTorch.
"""

import argparse
import hashlib

from gormley_vision.errors import UserError, reported
from gormley_vision.files import path_flag, refuse_unwritable


def main() -> None:
    """Check, convert, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=path_flag, help="the .pth file")
    parser.add_argument("out", type=path_flag, help="the .safetensors file")
    options = parser.parse_args()
    refuse_unwritable(options.out)
    try:
        content = options.source.read_bytes()
    except OSError as error:
        raise UserError(f"{options.source} cannot be read: {error.strerror}") from None
    from gormley_vision.extractors import INCEPTION_SHA256  # imports jax

    found = hashlib.sha256(content).hexdigest()
    if not found.startswith(INCEPTION_SHA256):
        raise UserError(
            f"{options.source} is not the published file: its SHA-256 is {found}, not {INCEPTION_SHA256}..."
        )
    try:
        import torch
        from safetensors.torch import save_file
    except ImportError as error:
        raise UserError(f"this needs PyTorch and safetensors ({error}): pip install torch safetensors") from None
    arrays = torch.load(options.source, map_location="cpu", weights_only=True)
    kept = {name: x.contiguous() for name, x in arrays.items() if not name.endswith("num_batches_tracked")}
    save_file(kept, options.out, metadata={"source_sha256": found, "source": options.source.name})
    print(f"{len(kept)} arrays in {options.out}")


if __name__ == "__main__":
    with reported():
        main()
