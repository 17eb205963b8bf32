"""Converts a TFDS set from tfrecord to array_record, in place, without TensorFlow and without a download.

TFDS's own `convert_format` command does this too, but imports TensorFlow and Apache Beam.
"""

from pathlib import Path

from gormley_vision.errors import UserError


def convert_to_array_record(builder_dir: Path) -> list[Path]:
    """Write each tfrecord shard of a prepared set also as array_record, next to it.

    Records are copied unchanged. Their number is verified, against dataset_info.json; their checksums are not
    (grain's reader does not). That file lists the new format only once all shards exist.

    Args:
        builder_dir: folder of one prepared version: dataset_info.json, features.json and the shards.

    Returns:
        The new files.

    Raises:
        UserError: a shard is missing, truncated, or has another number of records than it should.
    """
    import grain
    from tensorflow_datasets.core import dataset_info, file_adapters

    info = dataset_info.read_proto_from_builder_dir(builder_dir)

    def shards(file_format: file_adapters.FileFormat) -> list[tuple[Path, int]]:
        splits = dataset_info.get_split_dict_from_proto(info, builder_dir, file_format=file_format)
        return [
            (Path(path), count)
            for split in splits.values()
            for path, count in zip(split.filepaths, split.shard_lengths, strict=True)
        ]

    new = shards(file_adapters.FileFormat.ARRAY_RECORD)
    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat.ARRAY_RECORD]
    for (source, count), (target, _) in zip(shards(file_adapters.FileFormat.TFRECORD), new, strict=True):
        try:
            records = list(grain.experimental.TFRecordIterDataset(str(source)))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {source}: {error}. Prepare the set again.") from error
        if len(records) != count:
            raise UserError(
                f"{source} has {len(records)} records, but dataset_info.json says {count}. Prepare the set again."
            )
        temporary = target.with_name(f"{target.name}.tmp")
        adapter.write_examples(temporary, enumerate(records))
        temporary.rename(target)
    info.alternative_file_formats.append("array_record")
    dataset_info.write_dataset_info_proto(info, dataset_info_dir=builder_dir)
    return [path for path, _ in new]
