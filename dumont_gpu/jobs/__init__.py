"""The jobs: pack, restore and verify, each a pipeline of stages that reads as a recipe."""
