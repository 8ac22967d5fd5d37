"""What workflows are made of beside tasks, under the import paths of the upstream project. It holds no logic."""
