"""The coordinator's profiles as this machine keeps them, and the sources that it takes of them.

The stored profiles are what the coordinator proposed, word for word. Each time the configuration is loaded, its own
``accept_profiles`` decides what is taken, so that neither the coordinator nor the file can add a path (threats C6).
"""

from dataclasses import replace

import msgspec

from turku.agent.config.model import AgentConfig, ProposedSources, SourceConfig, StoredProfiles
from turku.core import durable
from turku.protocol.messages import ProfileReport, RefusedProposal

STORE_FILE = "profiles.json"
"""In ``var_dir``. Written by ``state/profile_store.py``."""
LIMIT_BYTES = 1024 * 1024
"""The largest file. The profiles of a machine may have a quarter of it (``policy/declaration/profiles.py``)."""
_REPORTED = 200


def with_stored_profiles(agent: AgentConfig) -> AgentConfig:
    """Return the configuration with the sources that it takes from the stored profiles."""
    if not agent.backup.accept_profiles:
        return with_profiles(agent, StoredProfiles())
    try:
        content = durable.read_regular_file(agent.state.var_dir / STORE_FILE, limit_bytes=LIMIT_BYTES)
        return with_profiles(agent, msgspec.json.decode(content, type=StoredProfiles))
    except FileNotFoundError:
        return with_profiles(agent, StoredProfiles())
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        return with_profiles(agent, StoredProfiles(), problem=f"{agent.state.var_dir / STORE_FILE}: {error}")


def with_profiles(agent: AgentConfig, stored: StoredProfiles, *, problem: str = "") -> AgentConfig:
    """Return the configuration with the sources that it takes from these profiles, and from no other ones."""
    own = {name: source for name, source in agent.sources.items() if not source.profile}
    proposed = ProposedSources(stored, problem=problem)
    if not stored.profiles:
        return msgspec.structs.replace(agent, sources=own, proposed=proposed)
    # Most machines have no profile.
    from turku.policy.declaration import profiles

    choice = profiles.choose(
        (profiles.Profile(each.name, each.sources) for each in stored.profiles),
        accepts=accepted(agent),
        own={*own, *agent.unusable_sources},
    )
    taken = {
        each.name: SourceConfig(
            name=each.name,
            path=each.path,
            options=each.options,
            place=f"profile {each.profile}",
            profile=each.profile,
            accepted_below=each.accepted_below,
        )
        for each in choice.taken
    }
    return msgspec.structs.replace(agent, sources={**own, **taken}, proposed=replace(proposed, refused=choice.refused))


def accepted(agent: AgentConfig) -> list[str]:
    """Return the directories of ``accept_profiles``."""
    return [str(path) for path in agent.backup.accept_profiles]


def report(agent: AgentConfig) -> ProfileReport:
    """Return what this machine accepts, takes and refuses, for the coordinator."""
    refused = agent.proposed.refused
    return ProfileReport(
        accepts=accepted(agent)[:100],
        digest=agent.proposed.stored.digest,
        taken={source.name: source.profile for source in agent.sources.values() if source.profile},
        refused=[RefusedProposal(each.profile[:200], each.name[:200], each.reason) for each in refused[:_REPORTED]],
        refused_count=len(refused),
    )
