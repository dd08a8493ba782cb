"""This project's program: `python main.py fit --config best.yaml`. It does not import tuner."""

from lightning.pytorch.cli import LightningCLI

if __name__ == "__main__":
    LightningCLI(save_config_callback=None)
