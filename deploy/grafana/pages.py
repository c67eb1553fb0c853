"""The two dashboards: *Arrears* for billing, *Worker* for whoever is on call."""

from __future__ import annotations

from typing import Final

from deploy.grafana.panels import Dashboard, Graph, Numbers, Query, Row, States, Unit


def _quantiles(metric: str, by: str = "", legend: str = "", where: str = "") -> tuple[Query, ...]:
    """The median and the 99th percentile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return tuple(
        Query(
            f"histogram_quantile({quantile}, sum by ({labels}) (rate({metric}_bucket{where}[$__rate_interval])))",
            f"p{round(quantile * 100)} {legend}".strip(),
        )
        for quantile in (0.5, 0.99)
    )


def _an_hour(metric: str, by: str, where: str = "") -> str:
    return f"sum by ({by}) (increase({metric}{where}[1h]))"


ARREARS: Final = Dashboard(
    "arrears",
    "Arrears",
    "Who is in arrears, suspended, deleted; what is owed; what comes next; what is held back.",
    (
        Row(
            "Now",
            (
                Numbers(
                    "Accounts",
                    "How many accounts stand where. In arrears: something is owed, nothing is stopped yet.",
                    Unit.NUMBER,
                    (Query("arrears:accounts:sum", "{{status}}"),),
                    width=12,
                ),
                Numbers(
                    "Owed",
                    "What is owed in each currency, by where the accounts stand.",
                    Unit.AMOUNT,
                    (Query("sum by (status, currency) (arrears_owed)", "{{status}} {{currency}}"),),
                    width=12,
                ),
                Graph(
                    "Accounts with something owed",
                    "A steep rise of those in arrears or suspended, without a fall in payments, is a fault of ours.",
                    Unit.NUMBER,
                    (Query('arrears:accounts:sum{status!="current"}', "{{status}}"),),
                ),
                Graph(
                    "Owed",
                    "What is owed in each currency.",
                    Unit.AMOUNT,
                    (Query("sum by (currency) (arrears_owed)", "{{currency}}"),),
                ),
                Graph(
                    "Entering and leaving arrears, an hour",
                    "Arrears that began, and those that ended by payment, before a suspend or after it.",
                    Unit.NUMBER,
                    (
                        Query(
                            _an_hour(
                                "arrears_notices_total",
                                "kind",
                                '{kind=~"arrears_started|arrears_cleared|restored"}',
                            ),
                            "{{kind}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Ahead",
            (
                Numbers(
                    "Marks ahead",
                    "Suspends and deletes that fall due within a day and within a week if nobody pays.",
                    Unit.NUMBER,
                    (Query("sum by (action, within) (arrears_marks_ahead)", "{{action}} within {{within}}"),),
                    width=12,
                    height=8,
                ),
                Graph(
                    "Deletes ahead",
                    "Deletes that fall due if nobody pays: a delete cannot be undone.",
                    Unit.NUMBER,
                    (Query('sum by (within) (arrears_marks_ahead{action="delete"})', "within {{within}}"),),
                    width=6,
                ),
                Graph(
                    "Accounts with something ahead",
                    "Accounts for which an instant is known at which something falls due: a notice or a mark.",
                    Unit.NUMBER,
                    (Query("sum(arrears_marks_pending)", "pending"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "Commands and notices",
            (
                Graph(
                    "Commands, an hour",
                    "What was commanded, and why. late_evidence: a payment in time that reached us too late.",
                    Unit.NUMBER,
                    (Query(_an_hour("arrears_commands_total", "action, reason"), "{{action}}: {{reason}}"),),
                    stacked=True,
                ),
                Graph(
                    "Notices, an hour",
                    "What customers and operators were told.",
                    Unit.NUMBER,
                    (Query(_an_hour("arrears_notices_total", "kind"), "{{kind}}"),),
                    stacked=True,
                ),
                Graph(
                    "Commands that were not confirmed",
                    "A subscriber has failed to apply them, or said nothing for 15 minutes.",
                    Unit.NUMBER,
                    (Query("sum(arrears_unconfirmed_commands)", "unconfirmed"),),
                ),
            ),
        ),
        Row(
            "Held back",
            (
                States(
                    "Guards",
                    "On how many partitions a guard stops suspends or deletes. It goes on with a resume.",
                    Unit.NUMBER,
                    (Query("sum by (guard) (arrears_guard)", "{{guard}}"),),
                ),
                Graph(
                    "Held back",
                    "Accounts whose suspend or delete waits for a resume, or which are on hold for their size.",
                    Unit.NUMBER,
                    (
                        Query("sum(arrears_commands_held_back)", "waits for a resume"),
                        Query("sum(arrears_accounts_held_for_size)", "too large"),
                    ),
                    width=6,
                ),
                Graph(
                    "Guards that tripped, an hour",
                    "How often a guard began to stop commands on a partition.",
                    Unit.NUMBER,
                    (Query(_an_hour("arrears_breaker_trips_total", "guard"), "{{guard}}"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "Promises",
            (
                Numbers(
                    "Kept, last three days",
                    "Restores within a minute of full payment, suspends and deletes within 5 minutes of the instant "
                    "they may be decided, time without a guard. Promised are 99 %.",
                    Unit.SHARE,
                    (
                        Query("1 - arrears:restores_late:ratio_rate3d", "restores in time"),
                        Query("1 - arrears:decisions_late:ratio_rate3d", "decisions in time"),
                        Query("1 - arrears:guard_open:ratio3d", "time without a guard"),
                    ),
                    width=12,
                    height=8,
                    bad=0.99,
                    low_is_bad=True,
                ),
                Graph(
                    "Broken, the last hour",
                    "The share of an hour's decisions that came late, and of the hour in which a guard stopped some.",
                    Unit.SHARE,
                    (
                        Query("arrears:restores_late:ratio_rate1h", "restores late"),
                        Query("arrears:decisions_late:ratio_rate1h", "decisions late"),
                        Query("arrears:guard_open:ratio1h", "guard open"),
                    ),
                    width=6,
                ),
                Numbers(
                    "Policies in force",
                    "On how many workers each policy is in force: a number that differs is an apply that went astray.",
                    Unit.NUMBER,
                    (Query("count by (policy) (arrears_policy_info)", "{{policy}}"),),
                    height=8,
                ),
            ),
        ),
    ),
)

WORKER: Final = Dashboard(
    "arrears-worker",
    "Arrears: Worker",
    "Whether the workers keep up, and if not, what they wait for.",
    (
        Row(
            "Well?",
            (
                Numbers(
                    "Ready",
                    "1: every partition of the worker has recovered and is worked on.",
                    Unit.NUMBER,
                    (Query("arrears_ready", "{{instance}}"),),
                    bad=1,
                    low_is_bad=True,
                ),
                Numbers(
                    "Partitions owned",
                    "How the partitions are shared out. Their sum is that of the topics, or some are nobody's.",
                    Unit.NUMBER,
                    (
                        Query("arrears_partitions_owned", "{{instance}}"),
                        Query("arrears:partitions_owned:count", "of all"),
                    ),
                ),
                Numbers(
                    "Partitions stopped",
                    "Partitions on which a worker met something that it must not skip.",
                    Unit.NUMBER,
                    (Query("sum by (reason) (arrears_partitions_stopped)", "{{reason}}"),),
                    bad=1,
                ),
                Numbers(
                    "Releases",
                    "How many workers run which release, and which version of the state it writes.",
                    Unit.NUMBER,
                    (
                        Query(
                            "count by (version, state_version, python) (arrears_build_info)",
                            "{{version}} (state {{state_version}}, Python {{python}})",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Records",
            (
                Graph(
                    "Records",
                    "Records processed, by input.",
                    Unit.RECORDS_PER_SECOND,
                    (Query("sum by (topic) (rate(arrears_records_total[$__rate_interval]))", "{{topic}}"),),
                    stacked=True,
                ),
                Graph(
                    "Lag",
                    "Records in Kafka that are not applied yet, by input.",
                    Unit.NUMBER,
                    (Query("arrears:lag_records:sum", "{{topic}}"),),
                ),
                Graph(
                    "Records that could not be used",
                    "Dead letters, by what is wrong with them.",
                    Unit.RECORDS_PER_SECOND,
                    (Query("sum by (error) (rate(arrears_dead_letters_total[$__rate_interval]))", "{{error}}"),),
                ),
                Graph(
                    "Age since recorded",
                    "How long the oldest record of a batch had been in Kafka when it was processed.",
                    Unit.SECONDS,
                    _quantiles("arrears_record_age_seconds", "topic", "{{topic}}", '{since="recorded"}'),
                ),
                Graph(
                    "Age since it occurred",
                    "How long ago the oldest record of a batch happened: mostly the delay of those who send it.",
                    Unit.SECONDS,
                    _quantiles("arrears_record_age_seconds", "topic", "{{topic}}", '{since="occurred"}'),
                ),
                Graph(
                    "Behind the clock",
                    "How far the input's watermark lies behind the clock, on the partition that is worst off.",
                    Unit.SECONDS,
                    (
                        Query(
                            "max by (topic) (clamp_min(time() - arrears_watermark_timestamp_seconds, 0))", "{{topic}}"
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Decisions",
            (
                Graph(
                    "Decision delay",
                    "From the instant a command may be decided to its commit. Promised: a minute for restores, five "
                    "for the others.",
                    Unit.SECONDS,
                    _quantiles("arrears_decision_delay_seconds", "action", "{{action}}"),
                ),
                Graph(
                    "Waiting for the fence",
                    "Marks that have passed and wait until every record of before is read; accounts that are overdue.",
                    Unit.NUMBER,
                    (
                        Query("sum(arrears_unfenced_marks)", "unfenced"),
                        Query("sum(arrears_marks_overdue)", "overdue"),
                    ),
                ),
                Graph(
                    "The longest wait",
                    "How long the oldest mark has waited for the fence, the oldest command for its confirmation.",
                    Unit.SECONDS,
                    (
                        Query("max(arrears_oldest_unfenced_mark_seconds)", "fence"),
                        Query("max(arrears_oldest_unconfirmed_seconds)", "confirmation"),
                    ),
                ),
                States(
                    "What is waited for",
                    "Partitions whose fence waits for a transaction that a producer has left open, or for the brokers.",
                    Unit.NUMBER,
                    (
                        Query("sum by (instance) (arrears_fence_blocked)", "{{instance}} open transaction"),
                        Query("sum by (instance) (arrears_brokers_away)", "{{instance}} brokers"),
                    ),
                ),
                Graph(
                    "Clock skew",
                    "The worker's clock minus the brokers'. Beyond 30 s suspends and deletes stop.",
                    Unit.SECONDS,
                    (Query("abs(arrears_clock_skew_seconds)", "{{instance}}"),),
                    width=12,
                ),
            ),
        ),
        Row(
            "Transactions",
            (
                Graph(
                    "Transactions",
                    "Transactions of the journal, by outcome. Each that is lost costs its partition a recovery.",
                    Unit.PER_SECOND,
                    (Query("sum by (outcome) (rate(arrears_transactions_total[$__rate_interval]))", "{{outcome}}"),),
                    width=6,
                ),
                Graph(
                    "Seconds of a transaction",
                    "From its beginning to its end. At 15 s the brokers give it up.",
                    Unit.SECONDS,
                    _quantiles("arrears_transaction_seconds"),
                    width=6,
                ),
                Graph(
                    "Seconds to publish",
                    "The same, of those with commands or notices in them.",
                    Unit.SECONDS,
                    _quantiles("arrears_publish_seconds"),
                    width=6,
                ),
                Graph(
                    "Fenced producers, an hour",
                    "How often another owner shut a worker out. More than a few: two have one instance id.",
                    Unit.NUMBER,
                    (Query(_an_hour("arrears_fenced_producers_total", "instance"), "{{instance}}"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "Coming and going",
            (
                Graph(
                    "Recoveries that run",
                    "Partitions whose state is being read back.",
                    Unit.NUMBER,
                    (Query("sum by (instance) (arrears_recovery_running)", "{{instance}}"),),
                    width=6,
                ),
                Graph(
                    "Seconds of a recovery, an hour's mean",
                    "How long it took to read back the state of a partition.",
                    Unit.SECONDS,
                    (
                        Query(
                            "sum by (instance) (rate(arrears_recovery_seconds_sum[1h])) "
                            "/ (sum by (instance) (rate(arrears_recovery_seconds_count[1h])) > 0) "
                            "or sum by (instance) (rate(arrears_recovery_seconds_count[1h])) * 0",
                            "{{instance}}",
                        ),
                    ),
                    width=6,
                ),
                Graph(
                    "Accounts recovered, an hour",
                    "Accounts read back from the state topic.",
                    Unit.NUMBER,
                    (Query(_an_hour("arrears_recovered_accounts_total", "instance"), "{{instance}}"),),
                    width=6,
                ),
                Graph(
                    "Rebalances, an hour",
                    "How often partitions were given out anew.",
                    Unit.NUMBER,
                    (Query(_an_hour("arrears_rebalances_total", "instance"), "{{instance}}"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "Process",
            (
                Graph(
                    "Memory",
                    "Resident memory. About 300 bytes an account and the overlay of what is not committed yet.",
                    Unit.BYTES,
                    (Query("arrears_process_resident_memory_bytes", "{{instance}}"),),
                ),
                Graph(
                    "Processor",
                    "Cores in use. One is all that a worker can use.",
                    Unit.CORES,
                    (Query("rate(arrears_process_cpu_seconds_total[$__rate_interval])", "{{instance}}"),),
                ),
                Graph(
                    "Open files",
                    "Connections to brokers, mostly.",
                    Unit.NUMBER,
                    (Query("arrears_process_open_fds", "{{instance}}"),),
                ),
            ),
        ),
    ),
)

PAGES: Final = (ARREARS, WORKER)
