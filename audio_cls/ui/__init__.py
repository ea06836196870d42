"""The UI of a workspace: MLflow's own server with a start page at its root.

`overview` collects what the page shows, `page` writes it as HTML, `app` adds it to MLflow's server, `serving` starts that.
"""
