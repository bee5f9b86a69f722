//! The same SVG as pixels, by resvg, with the font that the labels were measured in.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb::Database};

use super::{ChartError, Svg, text};

/// Pixels for each CSS pixel, so that text is sharp on dense screens.
const SCALE: f32 = 2.0;

static FONTS: LazyLock<Arc<Database>> = LazyLock::new(|| {
    let mut fonts = Database::new();
    for bytes in text::FONT_FILES {
        fonts.load_font_data(bytes.to_vec());
    }
    Arc::new(fonts)
});

/// A chart as a PNG, two pixels for each CSS pixel. Needs no font of the host.
///
/// # Errors
/// When the SVG is not one of ours and does not parse, or the picture would be too large.
pub fn png(svg: &Svg) -> Result<Vec<u8>, ChartError> {
    let fail = |reason: String| ChartError::Raster(reason);
    let options =
        Options { fontdb: Arc::clone(&FONTS), font_family: text::FAMILY.to_owned(), ..Options::default() };
    let tree = Tree::from_str(&svg.0, &options).map_err(|error| fail(error.to_string()))?;
    let size = tree.size();
    let (width, height) = ((size.width() * SCALE).ceil() as u32, (size.height() * SCALE).ceil() as u32);
    let mut pixels =
        Pixmap::new(width, height).ok_or_else(|| fail(format!("{width}×{height} pixels are too many")))?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().map_err(|error| fail(error.to_string()))
}
