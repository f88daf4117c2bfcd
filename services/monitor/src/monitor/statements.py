"""SQL that is clearer as such: the monitor's bulk writes, marks and joins, for `repository.py`."""

from sqlalchemy import text

LOCK = "SELECT pg_advisory_xact_lock{shared}(hashtextextended(:key, 0))"
STORE_PREDICTIONS = text("""
    INSERT INTO predictions
        (served_on, id, pipeline, model_version, entity, event_time, served_at, score, features, "row")
    SELECT (served_at AT TIME ZONE 'UTC')::date, id, :pipeline, :version, entity, event_time, served_at, score,
        features::jsonb, sampled::jsonb
    FROM unnest(CAST(:ids AS uuid[]), CAST(:entities AS text[]), CAST(:event_times AS timestamptz[]),
        CAST(:served_ats AS timestamptz[]), CAST(:scores AS float8[]), CAST(:features AS text[]),
        CAST(:rows AS text[]))
        AS row (id, entity, event_time, served_at, score, features, sampled)
    ORDER BY id
    ON CONFLICT DO NOTHING
    RETURNING id""")
ADD_COUNTS = text("""
    INSERT INTO profiles AS kept (pipeline, model_version, hour, feature, bin, count)
    SELECT :pipeline, :version, row.* FROM unnest(CAST(:hours AS timestamptz[]), CAST(:features AS smallint[]),
        CAST(:bins AS smallint[]), CAST(:counts AS bigint[])) AS row (hour, feature, bin, count)
    ON CONFLICT (pipeline, model_version, hour, feature, bin) DO UPDATE SET count = kept.count + excluded.count""")
STORE_OUTCOMES = text("""
    INSERT INTO outcomes (pipeline, entity, label, event_time, source)
    SELECT :pipeline, row.*, :source FROM unnest(CAST(:entities AS text[]), CAST(:labels AS float8[]),
        CAST(:event_times AS timestamptz[])) AS row (entity, label, event_time)
    ORDER BY entity
    ON CONFLICT (pipeline, entity) DO NOTHING
    RETURNING entity""")
MARK = text("""
    INSERT INTO checks AS kept
        (pipeline, window_start, window_end, model_version, name, value, verdict, tracked, details, measured_at)
    SELECT :pipeline, row.start, row.end, '', 'window', row.stored, 'insufficient', true,
        jsonb_build_object('since', clock_timestamp()), clock_timestamp()
    FROM unnest(CAST(:starts AS timestamptz[]), CAST(:ends AS timestamptz[]), CAST(:stored AS float8[]))
        AS row (start, "end", stored)
    ORDER BY row.start
    ON CONFLICT (pipeline, window_start, model_version, name, subject) DO UPDATE SET
        value = kept.value + excluded.value, verdict = 'insufficient', measured_at = excluded.measured_at,
        details = CASE WHEN kept.verdict = 'insufficient' THEN kept.details ELSE excluded.details END""")
MARK_KNOWN = """
    UPDATE checks AS kept SET verdict = 'insufficient', measured_at = clock_timestamp(),
        details = jsonb_build_object('since', clock_timestamp())
    WHERE kept.pipeline = :pipeline AND kept.name = 'window' AND kept.verdict = 'ok' AND {condition}"""
WAITING = text("""
    SELECT pipeline, window_start, window_end FROM checks
    WHERE name = 'window' AND verdict = 'insufficient' AND pipeline = ANY(CAST(:pipelines AS text[]))
        AND (measured_at <= clock_timestamp() - CAST(:settle AS interval)
            OR CAST(details->>'since' AS timestamptz) <= clock_timestamp() - CAST(:patience AS interval))
    ORDER BY pipeline, window_start LIMIT :most""")
TAKE = text("""
    UPDATE checks SET verdict = 'ok', measured_at = clock_timestamp(), details = '{}'
    WHERE pipeline = :pipeline AND window_start = :start AND model_version = '' AND name = 'window'
        AND verdict = 'insufficient' RETURNING id""")
SERVED = text("""
    SELECT model_version, count(*) AS requests FROM predictions
    WHERE pipeline = :pipeline AND event_time >= :start AND event_time < :end
    GROUP BY model_version ORDER BY model_version""")
SAMPLED = text("""
    SELECT id, "row", features, score FROM predictions
    WHERE pipeline = :pipeline AND model_version = :version AND "row" IS NOT NULL
    ORDER BY served_at DESC, id LIMIT :most""")
LABELLED = text("""
    SELECT DISTINCT ON (p.model_version, p.entity) p.model_version, o.label, p.score
    FROM predictions p JOIN outcomes o ON o.pipeline = p.pipeline AND o.entity = p.entity
    WHERE p.pipeline = :pipeline AND p.event_time >= :start AND p.event_time < :end
    ORDER BY p.model_version, p.entity, p.served_at DESC, p.id""")
PREDICTED_ENTITIES = """EXISTS (
    SELECT FROM predictions p WHERE p.pipeline = kept.pipeline AND p.entity = ANY(CAST(:entities AS text[]))
        AND p.event_time >= kept.window_start AND p.event_time < kept.window_end)"""
BY_SOURCE = """EXISTS (
    SELECT FROM outcomes o JOIN predictions p ON p.pipeline = o.pipeline AND p.entity = o.entity
    WHERE o.pipeline = kept.pipeline AND o.source = :source
        AND p.event_time >= kept.window_start AND p.event_time < kept.window_end)"""
TOUCHED = "kept.window_end > :first AND kept.window_start <= :last"
UNSEEN_OUTCOMES = """kept.window_start IN (
    SELECT date_trunc(:span, p.event_time) FROM outcomes o
        JOIN predictions p ON p.pipeline = o.pipeline AND p.entity = o.entity
    WHERE o.pipeline = kept.pipeline AND o.observed_at > :since
        AND o.observed_at > kept.measured_at)"""
NEWER_DATA = """kept.window_start IN (
    SELECT d.window_start FROM checks d
    WHERE d.pipeline = kept.pipeline AND d.name = 'retraining' AND d.model_version = :champion
        AND d.details->>'decision' = 'not-yet'
        AND d.window_start = (SELECT max(l.window_start) FROM checks l
            WHERE l.pipeline = d.pipeline AND l.name = 'retraining' AND l.model_version = d.model_version
                AND l.details->>'decision' <> 'insufficient')
        AND (CAST(d.details->'evidence'->>'dataset_number' AS integer) < :dataset
            OR EXISTS (SELECT FROM training_runs r WHERE r.pipeline = d.pipeline AND r.finished_at IS NOT NULL
                AND r.number = CAST(d.details->>'waits_for' AS integer))))"""
MARK_TRACKED = text("""
    UPDATE checks SET tracked = true
    FROM unnest(CAST(:ids AS bigint[]), CAST(:measured AS timestamptz[])) AS seen (id, measured_at)
    WHERE checks.id = seen.id AND checks.measured_at = seen.measured_at""")
