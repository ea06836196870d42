"""The ground floor: configuration, errors, the workspace, devices, processes. Imports no other room."""
