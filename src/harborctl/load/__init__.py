"""The main job: plan a load, write its rows, merge them, account for them. `run.run_load` is the way in."""
