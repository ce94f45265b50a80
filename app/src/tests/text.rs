use crate::prng::Prng;

/// A change of these would change every seed, and so every fixture made of one.
#[test]
fn the_generator_is_fixed() {
    let mut prng = Prng::new("iris");
    assert_eq!(prng.next(), 6_034_256_518_489_824_786);
    assert_eq!(prng.title(), "Limit the time zone in dark mode");
    assert_eq!(
        prng.prose(20),
        "Error edge exactly several review error review rollback record branch should schema."
    );
}
