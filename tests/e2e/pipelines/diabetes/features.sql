-- What is known at the visit.
SELECT
    raw.clinic,
    CASE raw.sex WHEN 1 THEN 'one' WHEN 2 THEN 'two' END AS sex,
    raw.age,
    raw.bmi,
    raw.bp,
    raw.s1,
    raw.s2,
    raw.s3,
    raw.s4,
    raw.s5,
    raw.s6,
    raw.s2 / NULLIF(raw.s3, 0) AS cholesterol_ratio
FROM raw
