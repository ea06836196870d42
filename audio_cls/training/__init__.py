"""The training loop, its batches, checkpoints and predictions. Knows neither Optuna nor MLflow."""
