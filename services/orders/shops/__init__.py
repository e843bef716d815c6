"""Orders of shops: awaited orders, and ids of earlier versions."""
