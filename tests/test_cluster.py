# SPDX-License-Identifier: Apache-2.0
import pytest

from realm_jax.cluster import Group, find_group

# As srun sets them for the third task of four, on the second node of two.
SLURM = {
  "SLURM_JOB_ID": "4097",
  "SLURM_STEP_NODELIST": "node[07-08]",
  "SLURM_NTASKS": "4",
  "SLURM_PROCID": "2",
  "SLURM_LOCALID": "0",
  "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
COORDINATOR = "node07:61441"  # 65535 - 2**12 + 1 + 4097 % 2**12
OURS = {
  "JAX_COORDINATOR_ADDRESS": "run-trainer-0-0.run:8476",
  "JAX_NUM_PROCESSES": "2",
  "JAX_PROCESS_ID": "1",
}


@pytest.fixture
def environment(monkeypatch):
  for name in (*SLURM, *OURS, "SLURM_GPUS_PER_TASK", "REALM_HOSTS"):
    monkeypatch.delenv(name, raising=False)

  def put(variables, **more):
    for name, value in (variables | more).items():
      monkeypatch.setenv(name, value)

  return put


def find(*flags):
  return find_group(*flags, wait_seconds=1.0)


def test_a_process_is_alone_where_nothing_says_more(environment):
  assert find() == find("", 1, 0) == Group()


def test_slurm_says_who_a_task_is_and_which_device_it_has(environment):
  environment(SLURM, SLURM_LOCALID="1", SLURM_PROCID="3")
  assert find() == Group(
    coordinator=COORDINATOR, num_processes=4, process_id=3, devices=(1,)
  )


@pytest.mark.parametrize(
  "more",
  [
    {"SLURM_STEP_TASKS_PER_NODE": "1(x4)"},
    {"SLURM_STEP_TASKS_PER_NODE": "1"},
    {"SLURM_GPUS_PER_TASK": "1"},  # SLURM shows it no other.
  ],
)
def test_a_task_that_shares_no_devices_has_all_that_it_sees(environment, more):
  environment(SLURM, **more)
  assert find().devices == ()


def test_one_task_of_slurm_is_alone(environment):
  environment(SLURM, SLURM_NTASKS="1", SLURM_PROCID="0")
  assert find() == find("", 1) == Group()


def test_a_manifest_says_it_by_variables(environment):
  environment(OURS, KUBERNETES_SERVICE_HOST="10.0.0.1", REALM_HOSTS="a,b")
  group = find()
  assert (group.coordinator, group.num_processes, group.process_id) == (
    "run-trainer-0-0.run:8476",
    2,
    1,
  )
  assert group.name(0) == "0 (a)"


def test_a_pod_without_them_is_alone_and_kubernetes_is_not_asked(environment):
  environment({"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
  assert find() == Group()


def test_flags_that_say_all_win_and_one_flag_wins_where_it_does_not_contradict(
  environment,
):
  environment(SLURM)
  assert find("here:1", 3, 0) == Group(
    coordinator="here:1", num_processes=3, process_id=0
  )
  assert find("here:1").coordinator == "here:1"
  assert find("", 4, 2).coordinator == COORDINATOR


@pytest.mark.parametrize(
  ("variables", "flags", "message"),
  [
    (SLURM, ("", 2), r"--num_processes=2 was given, and SLURM says 4\. Leave"),
    (SLURM, ("", None, 0), "--process_id=0 was given, and SLURM says 2"),
    (OURS, ("", 4), "--num_processes=4 was given, and the environment says 2"),
    ({}, ("", 2, 0), "num_processes=2 --process_id=0 does not say which"),
    ({}, ("here:1", 2), "--coordinator=here:1 --num_processes=2 does not say"),
    ({}, ("here:1",), "--coordinator=here:1 does not say"),
    ({}, ("here:1", 2, 2), r"process_id \(2\) must be in 0\.\.1"),
    ({}, ("here", 2, 1), "must be host:port, got 'here'"),
    (
      {"JAX_PROCESS_ID": "1"},
      (),
      "JAX_PROCESS_ID is set. Set all of JAX_COORDINATOR_ADDRESS, JAX_NUM",
    ),
  ],
)
def test_contradictions_and_halves_are_refused(
  environment, variables, flags, message
):
  environment(variables)
  with pytest.raises(ValueError, match=message):
    find(*flags)
