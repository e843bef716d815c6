"""The audit log: reading and checking it, and facts about operators' actions."""
