"""One file for each run: `get_config()` returns a `svlm_jax.train.config.TrainConfig`."""
