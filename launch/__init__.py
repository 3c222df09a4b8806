"""Starting training on one machine or many: `python -m launch.train configs/sft_stage1.py`."""
