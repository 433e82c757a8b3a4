"""The file in ``var_dir`` that keeps the coordinator's profiles."""

import msgspec

from turku.agent.config.model import AgentState, StoredProfiles
from turku.agent.config.profiles import STORE_FILE
from turku.agent.state import var_dir


def write(configuration: AgentState, profiles: StoredProfiles) -> None:
    """Replace the stored profiles, durably. Raises DurableWriteFailed."""
    path = var_dir.directory(configuration) / STORE_FILE
    var_dir.write_text(configuration, path, msgspec.json.encode(profiles).decode() + "\n")
