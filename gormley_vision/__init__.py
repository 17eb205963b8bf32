"""gormley_vision: the lecture's models (RoPE, transformers, ViT, GANs) in JAX and Flax."""
