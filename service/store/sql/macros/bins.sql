-- Bins of probabilities, entropies and positions.

-- Bins of a probability and of an entropy (nats): edges, and the place of a value among them.
CREATE MACRO _probability_edges() AS [0, 1e-4, 1e-3, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1];
CREATE MACRO _probability_bin(logp) AS (logp >= ln(1e-4))::INT + (logp >= ln(1e-3))::INT + (logp >= ln(0.01))::INT
    + (logp >= ln(0.05))::INT + (logp >= ln(0.1))::INT + (logp >= ln(0.25))::INT + (logp >= ln(0.5))::INT
    + (logp >= ln(0.75))::INT + (logp >= ln(0.9))::INT + (logp >= ln(0.99))::INT + (logp >= ln(0.999))::INT;
CREATE MACRO _entropy_edges() AS [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3];
CREATE MACRO _entropy_bin(nats) AS (nats >= 0.01)::INT + (nats >= 0.05)::INT + (nats >= 0.1)::INT
    + (nats >= 0.25)::INT + (nats >= 0.5)::INT + (nats >= 1)::INT + (nats >= 1.5)::INT + (nats >= 2)::INT
    + (nats >= 3)::INT;

-- ln(p / (1 - p)), and its bins between the logits of .0001 and .9999; what lies beyond is in the outermost.
CREATE MACRO _logit(logp) AS logp - ln(greatest(1 - exp(least(logp, 0)), 1e-12));
CREATE MACRO _logit_bins() AS {'limit': 9.2102404::DOUBLE, 'n': 25};
CREATE MACRO _logit_bin(logp) AS
least(floor((greatest(-_logit_bins().limit, least(_logit_bins().limit, _logit(logp))) + _logit_bins().limit)
    / (2 * _logit_bins().limit) * _logit_bins().n), _logit_bins().n - 1);

-- Where a token lies in a dimension that a view can count by: decile places tokens by their position, over all of a view.
CREATE MACRO _key(by_, logp, entropy, at_, token_id) AS
CASE by_ WHEN 'probability' THEN _probability_bin(logp) WHEN 'entropy' THEN _entropy_bin(entropy)
    WHEN 'position' THEN floor(log2(at_ + 1)) WHEN 'decile' THEN at_ WHEN 'token' THEN token_id
    WHEN 'logit' THEN _logit_bin(logp) END::BIGINT;

-- Bins of a probability: [0, .001), [.001, .01), … [.99, 1]. _bin_of numbers them from 1.
CREATE MACRO _bin_low(bin) AS ([0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99]::DOUBLE[])[bin];

CREATE MACRO _bin_high(bin) AS ([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 1]::DOUBLE[])[bin];

CREATE MACRO _bin_of(p) AS
CASE WHEN p < 0.001 THEN 1 WHEN p < 0.01 THEN 2 WHEN p < 0.1 THEN 3 WHEN p < 0.5 THEN 4 WHEN p < 0.9 THEN 5
    WHEN p < 0.99 THEN 6 WHEN p IS NOT NULL THEN 7 END;
