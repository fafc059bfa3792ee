"""Check that an artifact computes what its network computes, stage by stage.

`run_ladder` runs the networks, `ladder` compares their logits rung by rung, `compare` computes the
metrics, and `tolerances` holds the limits. `report` writes the result.
"""
