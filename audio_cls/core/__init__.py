"""The ground floor: configuration, errors, the workspace, processes and what they tell.

Law: it imports no other room, and shows nothing itself. Its face is `config` (Component, ConfigError), `errors` (UserError), `workspace`
(Workspace), `notices` (say, progress, Display) and `stopping` (StopRequest, Interrupted). Nothing is imported here: `interpreter` must
run before anything is found in the current folder.
"""
