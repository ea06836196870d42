"""From published layouts to arrays: sources -> manifest -> packed corpus -> splits."""
