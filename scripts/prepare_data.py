"""Prepare a data set for training, which itself never downloads.

A TensorFlow Datasets set, written as array_record (downloads; needs `pip install -e ".[prepare]"`):

    python scripts/prepare_data.py cifar10 [--data_dir=DIR]

A set that already exists as tfrecord is converted in place, without a download and without TensorFlow.
Fashion-MNIST or MNIST from IDX files, written as DIR/train.npz and DIR/test.npz:

    python scripts/prepare_data.py fashion_mnist --idx=/usr/share/datasets/fashion-mnist --out=fashion_mnist
"""

import argparse
import difflib
import re
import sys
from pathlib import Path

from gormley_vision.errors import UserError, reported
from gormley_vision.files import user_path


def prepare_tfds(name: str, data_dir: str) -> Path:
    """Prepare a TFDS set as array_record and return its folder.

    Args:
        name: such as "cifar10", "cifar10:3.0.2" or "set/config".
        data_dir: TFDS data directory, "" for TFDS's own default.

    Raises:
        UserError: the name is unknown, or TensorFlow or the network is missing.
    """
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import read_only_builder

    from gormley_vision.data.tfrecord import convert_to_array_record

    directory = data_dir or str(tfds.core.constants.DATA_DIR)
    directory = str(user_path(directory))
    try:
        found = read_only_builder.builder_from_files(name, data_dir=directory)
    except (ValueError, OSError):
        pass  # not prepared yet
    else:
        formats = {f.value for f in (found.info.file_format, *found.info.alternative_file_formats) if f}
        if "array_record" not in formats and "tfrecord" in formats:
            convert_to_array_record(Path(found.data_dir))
        if formats & {"array_record", "tfrecord"}:
            return Path(found.data_dir)
        raise UserError(f"{found.data_dir} is prepared as {', '.join(sorted(formats))}: choose another --data_dir")
    # Without community sets: listing them contacts a server.
    known = tfds.list_builders(with_community_datasets=False)
    bare = re.split("[:/]", name)[0]
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=1)
        raise UserError(
            f"TFDS {tfds.__version__} has no data set {bare!r}"
            + (f"; did you mean {near[0]!r}? python scripts/prepare_data.py {near[0]}" if near else "")
        )
    print(f"downloading and preparing {name} into {directory}", flush=True)
    try:
        # Builders that return encoded images need no TensorFlow to write array_record; those that return arrays
        # (cifar10, mnist) encode them with it. Only running a builder shows which it is.
        builder = tfds.builder(name, data_dir=directory, file_format="array_record")
        builder.download_and_prepare()
    except ImportError as error:
        # TFDS raises it again with more text and without its `name`.
        package = re.search(r"No module named '(\w+)", str(error))
        needs = f"the package {package[1]}" if package else f"more packages ({error})"
        raise UserError(f'preparing {name} needs {needs}: pip install -e ".[prepare]"') from error
    except (requests.exceptions.RequestException, tfds.download.DownloadError) as error:
        raise UserError(
            f"cannot download {name}: {error}\nPrepare it on a machine with a network, and copy the folder "
            f"{directory}/{bare} here."
        ) from error
    except (ValueError, AssertionError) as error:  # an unknown config or version, or a manual download
        raise UserError(f"TFDS cannot prepare {name}: {error}") from error
    return Path(builder.data_dir)


def main(arguments: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", help="cifar10, mnist, fashion_mnist, or another TFDS name")
    parser.add_argument("--data_dir", default="", help="TFDS data directory (default: TFDS_DATA_DIR)")
    parser.add_argument("--idx", default="", help="folder of IDX files to convert, instead of a TFDS set")
    parser.add_argument("--out", default="", help="with --idx: folder for train.npz and test.npz")
    args = parser.parse_args(arguments)
    if bool(args.idx) != bool(args.out) or (args.idx and args.data_dir):
        raise UserError("--idx and --out must be given together, and without --data_dir")
    if args.out.endswith(".npz"):
        raise UserError(f"--out is a folder, for train.npz and test.npz: --out={args.out.removesuffix('.npz')}")
    if args.idx:
        from gormley_vision.data.idx import convert_idx

        for file in convert_idx(args.name, user_path(args.idx), user_path(args.out)):
            print(f"wrote {file}")
        print(f"train on it: --config.data.source=npz --config.data.path={args.out}")
        return
    print(f"prepared: {prepare_tfds(args.name, args.data_dir)}")
    override = f" --config.data.path={args.data_dir}" if args.data_dir else ""
    print(f"train on it: --config.data.source=tfds --config.data.name={args.name}{override}")


if __name__ == "__main__":
    with reported():
        main(sys.argv[1:])
