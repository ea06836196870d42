"""Recording runs in MLflow: `Tracker` opens runs, `Run` records one, and no failure of either costs the run itself.

Law: only this room imports mlflow. `tracker` is what others call; `run` and `sender` send operations, `outbox` keeps those that
could not be sent, `store` opens (and relocates) a workspace's database, `reads` answers questions, `views`, `suites` and `notes` save what the
UI opens on, `addresses` knows where it is served, `environment` says where a run was made, `server` gives MLflow's own application to `ui`, `copy` carries runs between workspaces.
"""

from audio_cls.tracking.tracker import DatasetInfo, Run, RunInfo, State, Tracker, environment_tags

__all__ = ["DatasetInfo", "Run", "RunInfo", "State", "Tracker", "environment_tags"]
