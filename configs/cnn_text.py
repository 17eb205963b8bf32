"""Classification of sentences by a small convolutional net on words: what an encoder without pre-training has to beat.

    python train.py --config=configs/cnn_text.py --config.data.path=trec

with the tables of configs/finetune_text.py.

Source: Kim 2014 (arXiv:1408.5882), CNN-rand: embeddings of 300 channels, 100 maps for windows of 3, 4 and 5 words,
    dropout 0.5, batches of 50; harvardnlp/sent-conv-torch reached 88.2 % of TREC's test questions with it.
Deviations: Adam with a rate that falls to 0 in place of Adadelta and early stopping; the head has no largest norm.
Reached here: 91.3 +- 0.2 % of TREC's test questions after 1,000 steps (seeds 0, 1, 2): docs/text.md.
"""

from gormley_vision.config import check_arg, default_config, shrink


def get_config(arg: str = ""):
    """`arg` 'smoke' shrinks the experiment to seconds."""
    config = default_config("text_classification")
    config.duration = "15 epochs"
    config.data.update(source="table", path="trec", tokenizer="words", vocabulary=16384, context=48, batch_size=50)
    config.text_classification.network = "cnn"
    config.optimizer.update(learning_rate=1e-3, warmup="50 steps")
    config.eval.update(split="test", every="1 epochs")
    return shrink(config) if check_arg(arg) else config
