//! Finds the setting that a misspelt key or variable most likely means.

use super::{
    section_list::settings,
    setting::{FILE_VARIABLE, Setting, VARIABLE_PREFIX},
};

/// Returns a warning if a variable of another prefix is spelt like one of the service's variables. It may
/// belong to another program, so it is no error.
pub(super) fn misspelt_prefix(name: &str) -> Option<String> {
    /// Two wrong characters in a name of thirty: a variable of another program hardly comes so close.
    const SIMILARITY_MIN: f64 = 0.93;
    let upper = name.to_ascii_uppercase();
    if !upper.starts_with("KAIROS") {
        return None;
    }
    let known = settings().map(Setting::variable).chain([FILE_VARIABLE.to_owned()]);
    let similar = known.map(|known| (strsim::normalized_damerau_levenshtein(&upper, &known), known));
    let (similarity, known) = similar.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (similarity >= SIMILARITY_MIN)
        .then(|| format!("the variable {name} is not a setting and is ignored: did you mean {known}?"))
}

/// Words that other programs use in the names of their settings, and the words of this one.
const WORDS_OF_OTHERS: [(&str, &str); 10] = [
    ("port", "listen"),
    ("host", "listen"),
    ("addr", "listen"),
    ("address", "listen"),
    ("bind", "listen"),
    ("db", "database"),
    ("dsn", "url"),
    ("smtp", "mail"),
    ("metrics", "telemetry"),
    ("debug", "level"),
];

/// Returns the known name that `name` most likely means: the one whose spelling is most similar, if one is
/// similar enough, or else the first one of which it is the beginning. Each known name comes with its last
/// part, without the section: `name` may lack the section. Of equally similar names the first one is
/// returned.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = (String, String)>) -> Option<String> {
    /// One wrong letter of four. An unrelated name gets no suggestion.
    const SIMILARITY_MIN: f64 = 0.75;
    let name = name.to_ascii_lowercase();
    let names = [in_words_of_settings(&name), name];
    let (mut best, mut begins) = ((0.0, None), None);
    for (known, field) in known {
        // All variables begin alike, which says nothing about their similarity.
        let without_prefix = known.strip_prefix(VARIABLE_PREFIX).unwrap_or(&known);
        let spellings = [without_prefix, &field].map(str::to_ascii_lowercase);
        for (name, spelling) in
            names.iter().flat_map(|name| spellings.iter().map(move |spelling| (name, spelling)))
        {
            let similarity = strsim::normalized_damerau_levenshtein(name, spelling);
            if similarity >= SIMILARITY_MIN && similarity > best.0 {
                best = (similarity, Some(known.clone()));
            }
            if begins.is_none()
                && spelling.strip_prefix(name).is_some_and(|rest| rest.starts_with(is_separator))
            {
                begins = Some(known.clone());
            }
        }
    }
    best.1.or(begins)
}

/// True for what separates two words of a name.
const fn is_separator(character: char) -> bool {
    matches!(character, '_' | '-' | '.')
}

/// Replaces the words of other programs in a name in lower case.
fn in_words_of_settings(name: &str) -> String {
    let renamed = |part: &str| {
        let (word, end) = part.split_at(part.trim_end_matches(is_separator).len());
        let known = WORDS_OF_OTHERS.into_iter().find(|(other, _)| *other == word);
        format!("{}{end}", known.map_or(word, |(_, own)| own))
    };
    name.split_inclusive(is_separator).map(renamed).collect()
}
