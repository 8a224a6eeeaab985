"""The paper's claims, each with what would decide it, and the experiments and computed facts that do."""
