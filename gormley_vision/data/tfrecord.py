"""Converting a TFDS set from tfrecord to array_record, in place, without TensorFlow and without a download.

TFDS's own `convert_format` command does this too, but imports TensorFlow and Apache Beam.
"""

from pathlib import Path

from gormley_vision.errors import UserError


def convert_to_array_record(builder_dir: Path) -> list[Path]:
    """Write each tfrecord shard of a prepared set again as array_record, beside it.

    The records are copied byte by byte. Their checksums are not verified (grain's reader does not), their
    number is, against dataset_info.json. That file names the new format only once all shards are there.

    Args:
      builder_dir: folder of one prepared version: dataset_info.json, features.json and the shards.

    Returns:
      The new files.

    Raises:
      UserError: a shard that is missing, cut short, or does not hold as many records as it should.
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
                f"{source} holds {len(records)} records, dataset_info.json says {count}. Prepare the set again."
            )
        temporary = target.with_name(f"{target.name}.tmp")
        adapter.write_examples(temporary, enumerate(records))
        temporary.rename(target)
    info.alternative_file_formats.append("array_record")
    dataset_info.write_dataset_info_proto(info, dataset_info_dir=builder_dir)
    return [path for path, _ in new]
