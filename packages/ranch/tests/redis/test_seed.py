"""Every example of the seed, word for word; what it leaves undefined is given as a stub."""

from __future__ import annotations

import pytest
from celery import Celery

from celery_ranch.application import ranch_of

pytestmark = pytest.mark.not_on("cluster", reason="its broker is the same server")

BASIC = """
from celery import Celery
from celery_ranch import lru_task

app = Celery('tasks')

@lru_task(app)
def process_data(data):
    # Process data
    return result

# Using LRU prioritization with a process identifier as the LRU key
result = process_data.lru_delay("bulk_batch_job", data_to_process)
"""

WEIGHTED = """
# Set priority weights for different process types (lower value = higher priority)
# 0.5 = 2x priority, 2.0 = 0.5x priority
process_data.set_priority_weight("critical_process", 0.5)  # High priority
process_data.set_priority_weight("background_job", 2.0)    # Low priority

# Submit task with priority and expiry
result = process_data.lru_delay(
    "critical_process",       # LRU key (process identifier)
    data_to_process,          # Task argument
    priority_weight=0.5,      # Priority weight
    expiry=1800               # Expires after 30 minutes
)
"""

FUNCTION = """
from celery_ranch.utils.lru_tracker import LRUKeyMetadata

# Define a custom weight function based on process characteristics
def resource_based_priority(lru_key: str, metadata: LRUKeyMetadata) -> float:
    \"\"\"Calculate priority based on resource requirements in metadata.\"\"\"
    # Default weight if no custom data
    if not metadata.custom_data or "resource_impact" not in metadata.custom_data:
        return 1.0
    
    # Higher resource impact = lower priority (higher weight)
    impact = metadata.custom_data.get("resource_impact", 1.0)
    return max(impact, 0.1)  # Ensure positive weight

# Create task with custom weight function
@lru_task(app, weight_function=resource_based_priority)
def process_data(data):
    # Process data
    return result

# Store custom metadata for different processes
process_data.set_custom_data("data_mining_job", "resource_impact", 3.0)  # High impact, lower priority
process_data.set_custom_data("user_report", "resource_impact", 0.5)      # Low impact, higher priority
"""  # noqa: W293  # word for word

TAGS = """
# Add tags to categorize different process types
process_data.add_tag("daily_batch", "category", "maintenance")
process_data.add_tag("user_import", "category", "data-ingestion")
process_data.add_tag("user_report", "importance", "critical")

# Find processes by tag
critical_processes = process_data.get_tagged_clients("importance", "critical")
"""

MONITORING = """
# Get process information
process_info = process_data.get_client_metadata("batch_job_id")
print(f"Process priority: {process_info['weight']}")
print(f"Pending tasks: {process_info['pending_tasks']}")

# Get system status
status = process_data.get_system_status()
print(f"Backlog size: {status['backlog_size']}")
"""


@pytest.fixture
def run(celery_environment, request):
    names = {"__name__": f"seed_{request.node.name}", "data_to_process": [1, 2], "result": 0}

    def run(*blocks):
        for block in blocks:
            exec(block, names)
        return names

    yield run
    if isinstance(names.get("app"), Celery):
        ranch_of(names["app"]).backlog.client.close()
        names["app"].close()


def test_basic_usage(run):
    names = run(BASIC)
    assert names["result"].id
    assert names["process_data"].get_client_metadata("bulk_batch_job")["pending_tasks"] == 1


def test_weighted_priority(run):
    names = run(BASIC, WEIGHTED)
    assert names["process_data"].get_client_metadata("critical_process")["weight"] == 0.5


def test_custom_weight_function(run):
    head, _, _ = BASIC.partition("@lru_task")
    names = run(head, FUNCTION)
    assert names["process_data"].get_custom_data("user_report") == {"resource_impact": 0.5}


def test_tags(run):
    assert run(BASIC, TAGS)["critical_processes"] == ["user_report"]


def test_monitoring(run, capsys):
    run(BASIC, MONITORING)
    assert capsys.readouterr().out == "Process priority: 1.0\nPending tasks: 0\nBacklog size: 1\n"
