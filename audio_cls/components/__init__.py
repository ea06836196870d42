"""What an experiment is built from: models, augmentations, features, losses, sampling, optimisers. Imports `core` only."""
